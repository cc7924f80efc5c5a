"""A blinded comparison of methods by people: its plan, the page that raters see, the votes, and what they say."""
