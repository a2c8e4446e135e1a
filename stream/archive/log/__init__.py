"""What is written down: commit entries, changes and legal holds as chains of records, and what the keys of objects say.

Pure: bytes in, bytes out. Each record holds the SHA-256 of the one before it, so that none changes unnoticed. Here lie
the forms of these records and the rules that they keep by themselves; whoever reads or writes them has another room.
"""
