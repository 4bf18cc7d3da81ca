"""Signing in with a provider of identities by OpenID Connect: authorization code with PKCE, state and nonce."""
