"""What a benchmark run is: configuration, workers, step loop, tables, and what is concluded from them."""
