"""What a run found, a module a page: several subjects in one picture, rare subjects, the claims of the paper."""
