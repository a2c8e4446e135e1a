"""Attribution methods: which features and which past events moved an item."""
