"""The quarantine context: uploads that are held until a second person releases them."""
