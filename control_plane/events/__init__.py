"""What happens in the fleet, for whoever wants to follow it: a short memory, its sources, and webhooks."""
