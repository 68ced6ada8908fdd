"""Whether GPUs, their driver and the installed Paddle fit together, before anything is started on them."""
