"""The values that config files share: `toy` and `image` make a config of a variant's words (`variants`)."""
