"""What people read, made from records: alerts, cards, pages, status, audit packs."""
