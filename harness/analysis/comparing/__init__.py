"""Whether rates differ: of two runs, of series of runs, of two loaders within one run."""
