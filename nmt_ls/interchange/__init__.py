"""Models from and for other toolkits: Hugging Face Marian, CTranslate2, safetensors, StableHLO."""
