"""The records of the archive: chains of commit entries, changes and legal holds, and the meaning of object keys.

Pure: bytes in, bytes out. Each record contains the SHA-256 of the record before it, so that none can change unnoticed.
This package defines the formats of records and the rules within a chain. Other packages read and write them.
"""
