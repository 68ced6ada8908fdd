"""The devices and the host: what there is, what it is called, and its telemetry."""
