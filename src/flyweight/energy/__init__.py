"""What models and answers cost: the meter, the dated constants, the sticker, the ledger."""
