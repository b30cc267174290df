"""Every decoder against bytes that nobody meant: nothing but the declared errors, and decode-encode-decode agrees."""
