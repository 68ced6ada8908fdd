"""What GPUs and host are doing while a run goes on, through NVML and psutil; None where they can't say."""
