"""Who judges the judges: metrics on trial, a run by the rules of others, and what people say of its pictures."""
