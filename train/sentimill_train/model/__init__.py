"""The student: encoder, pooling, head, vocabulary and LoRA adapters."""
