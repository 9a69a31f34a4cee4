"""Evaluation: translation quality, likelihood with hard labels, calibration, significance."""
