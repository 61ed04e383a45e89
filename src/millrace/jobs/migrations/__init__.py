"""How the tables of jobs came to be, a file a change. Run by `jobs.database.open_database`."""
