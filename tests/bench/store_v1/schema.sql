CREATE TABLE comparisons(run_id VARCHAR, "method" VARCHAR, reference VARCHAR, metric VARCHAR, effect DOUBLE, low DOUBLE, high DOUBLE, pairs INTEGER, subjects INTEGER, PRIMARY KEY(run_id, "method", metric));
CREATE TABLE concept_counts(corpus VARCHAR, concept VARCHAR, count BIGINT, PRIMARY KEY(corpus, concept));
CREATE TABLE failures(run_id VARCHAR, sample_key VARCHAR, kind VARCHAR, reason VARCHAR, evidence_json JSON, rank INTEGER, PRIMARY KEY(run_id, sample_key, kind));
CREATE TABLE runs(run_id VARCHAR PRIMARY KEY, created TIMESTAMP, command VARCHAR, config_json JSON, code_version VARCHAR, suite VARCHAR, base VARCHAR, executed TIMESTAMP, watched_json JSON, finished_inputs VARCHAR);
CREATE TABLE run_protocols(run_id VARCHAR, metric VARCHAR, protocol VARCHAR, PRIMARY KEY(run_id, metric));
CREATE TABLE run_samples(run_id VARCHAR, sample_key VARCHAR, PRIMARY KEY(run_id, sample_key));
CREATE TABLE samples(sample_key VARCHAR PRIMARY KEY, "method" VARCHAR, config_json JSON, base VARCHAR, suite VARCHAR, subject VARCHAR, class_noun VARCHAR, prompt_id VARCHAR, prompt_kind VARCHAR, prompt VARCHAR, image_index INTEGER, seed BIGINT, path VARCHAR, "seconds" DOUBLE, peak_mb DOUBLE, setup_key VARCHAR, references_json JSON, code_version VARCHAR);
CREATE TABLE scores(sample_key VARCHAR, metric VARCHAR, protocol VARCHAR, "value" DOUBLE, explanation VARCHAR, metadata_json JSON, PRIMARY KEY(sample_key, metric, protocol));
CREATE TABLE setups(setup_key VARCHAR PRIMARY KEY, "method" VARCHAR, subject VARCHAR, config_json JSON, "seconds" DOUBLE, peak_mb DOUBLE, path VARCHAR);
CREATE TABLE summaries(run_id VARCHAR, "method" VARCHAR, metric VARCHAR, mean DOUBLE, low DOUBLE, high DOUBLE, samples INTEGER, subjects INTEGER, PRIMARY KEY(run_id, "method", metric));
CREATE VIEW results AS SELECT * FROM run_results WHERE (run_id = (SELECT run_id FROM runs ORDER BY executed DESC LIMIT 1));
CREATE VIEW run_results AS SELECT run_id, sample_key, samples."method", samples.subject, class_noun, prompt_id, prompt_kind, prompt, image_index, seed, metric, protocol, "value", explanation, metadata_json, samples.path FROM (((run_samples INNER JOIN samples USING (sample_key)) INNER JOIN scores USING (sample_key)) INNER JOIN run_protocols USING (run_id, metric, protocol));

