"""Several processes behind the same ports, and what makes them look like one."""
