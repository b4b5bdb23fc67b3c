//! `gitlab-pid1`
