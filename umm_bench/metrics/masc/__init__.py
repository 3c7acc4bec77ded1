"""MaSC (2605.22469): identity from the subject's patches, and what the prompt asks for beside it from the others."""
