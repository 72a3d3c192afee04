"""What people type, checked for shape before an operation is asked."""
