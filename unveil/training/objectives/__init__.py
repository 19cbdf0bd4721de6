"""What a run can learn: one file each, all driven by the one training loop."""
