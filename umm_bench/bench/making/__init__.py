"""Who makes the pictures, one process or several: jobs in, rows out. Only the process of the run writes rows."""
