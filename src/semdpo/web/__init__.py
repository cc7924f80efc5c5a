"""What the package's servers share: errors, strict JSON, bodies with limits, and addresses to listen on."""
