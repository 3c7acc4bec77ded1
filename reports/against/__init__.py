"""What a run is held against beside its own methods: another run of the same store, and what papers print."""
