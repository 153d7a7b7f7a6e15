"""The trainer: one loop for pretraining and fine-tuning, with its optimizers, schedules and journal."""
