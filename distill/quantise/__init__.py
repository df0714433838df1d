"""INT8 as one explicit symmetric Q/DQ graph: what is measured, what is folded, what stays float, what it costs."""
