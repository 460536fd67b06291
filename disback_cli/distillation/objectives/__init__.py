"""Score-distillation objectives of the generator step: one class a file, pure tensor functions inside."""
