"""The life of an assigned partition, from assignment to revocation: restore, fold, checkpoint and close."""
