"""Parts of `scripts/gpu_study`: stages that go on where they stopped, and their targets."""
