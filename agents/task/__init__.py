"""One partition from assignment to revocation: restore, fold, checkpoint, close."""
