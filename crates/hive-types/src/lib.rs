//! Values that the API, the command line and the app share.
