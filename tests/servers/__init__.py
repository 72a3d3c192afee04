"""Real servers for tests: each is a process of ours, gone when the test run is."""
