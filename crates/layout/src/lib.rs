//! The OCI image layout on disk (image-spec, image-layout.md): verify while reading, write atomically, index under a
//! lock. The only place where the digest of a blob is computed or compared.

#![forbid(unsafe_code)]
