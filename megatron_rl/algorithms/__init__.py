"""What the papers write as formulas: pure functions of tensors that import neither engine."""
