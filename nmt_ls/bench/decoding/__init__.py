"""Parts of `bench decode`: the model, the other toolkits, where time goes, memory over lines."""
