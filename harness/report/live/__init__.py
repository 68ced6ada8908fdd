"""What a run does at this moment, read from its tables as they grow; the run doesn't know that it is looked at."""
