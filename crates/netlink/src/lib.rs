//! A blocking netlink socket: requests with acknowledgement, dumps and atomic batches, for rtnetlink and nfnetlink.

#![forbid(unsafe_code)]
