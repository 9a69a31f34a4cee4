"""Parts of `bench train`: the task, the other toolkits, the products alone."""
