"""The dataset card. Its front matter tells `datasets.load_dataset(folder)` which files are the data."""

from __future__ import annotations

from typing import Any

from curation.output.tally import Tally

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
- config_name: concept_counts
  data_files: concept_counts.parquet
task_categories:
- text-to-image
language:
- en
---
# Grounded subject-caption pairs

{pairs} pairs from {rows_kept} of {rows_read} rows of the corpus ({source}), made by `python -m curation.build`.
Each row is one phrase of a caption with the box of what it names. `manifest.json` has every argument, count,
version and file digest; `report.html` shows where the other rows went, `pairs.html` some of the pairs.

| column | meaning |
|---|---|
| `id` | digest of image, caption and span: the same pair has it in every build |
| `key`, `url` | where the corpus has it |
| `image` | the source image, bytes as found |
| `caption` | cleaned caption |
| `phrase`, `phrase_start`, `phrase_end` | `caption[phrase_start:phrase_end] == phrase`, in characters |
| `head`, `concept` | head noun as written, and its lemma |
| `noun` | the head with what makes one name with it, without looks: "ice cream", "map of japan" |
| `box` | x0, y0, x1, y1, each in 0..1 of the upright image |
| `score` | the detector's score of this phrase on this box |
| `crop` | the box cut out, PNG |
| `width`, `height` | of the upright image, in pixels |
| `punsafe`, `pwatermark`, `similarity` | the corpus' own scores, null where it has none |
| `aesthetic` | the corpus' own score, null where it has none |
| `clip_score` | cosine of crop and phrase, null without `--clip` |
| `mask` | of the crop, PNG, 255 on the thing; null without `--segmenter` or a detector that makes masks |
| `embedding` | of the image, null without `--semantic-duplicates` |
| `phash`, `sha256` | of the image: 64-bit perceptual hash; digest of the bytes |
{crowds}
`concept_counts.parquet` counts pairs by what their subject may be called (`concept`, `count`, `words`): the head
noun's lemma, and that with up to two words before it. The rows with `words` = 1 add up to the number of pairs.

```python
datasets.load_dataset("parquet", data_files="data/*.parquet")
```

The images and captions belong to whoever published them; the corpus' licence applies. Detector: `{detector}`.
Boxes and phrases are machine-made, and unchecked.
"""


CROWDS = """| `others_in_image`, `others_in_crop` | other boxes of the noun, and those with a quarter in the crop |
| `foreign_share` | of the crop, covered by boxes of other things that do not hold the subject |
"""


def card_text(tally: Tally, head: dict[str, Any]) -> str:
    return CARD.format(
        pairs=tally.pairs,
        rows_kept=tally.rows_kept,
        rows_read=tally.rows_read,
        source=head["config"]["source"],
        detector=head["detector"],
        crowds=CROWDS if head["config"].get("crowds") or head["config"].get("alone") else "",
    )
