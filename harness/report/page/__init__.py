"""The HTML page of one or several runs: one file that needs nothing else, made of their records and tables alone."""
