"""The web view of this machine's runs: looks at them, stops and resumes them, and lets a person answer."""
