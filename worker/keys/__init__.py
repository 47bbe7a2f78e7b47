"""Keys: what signs and marks samples, and the installation key that wraps all secrets.

`master` wraps and unwraps, `certificates` makes and reads what a signing key consists of, `changes`
creates, rotates and revokes, `keyring` is what marks and ledger use, and `bundle` is what strangers
verify with. A secret exists in memory alone: never in a spec, a log, an error, an argument or an
environment variable. Must not know what is signed or marked.
"""
