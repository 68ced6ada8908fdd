"""Which cores a rank runs on: how a machine's cores are arranged, how ranks share them, and what keeps a rank there."""
