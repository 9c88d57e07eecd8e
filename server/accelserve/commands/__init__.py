"""The commands of `accelserve`, one module each; heavy parts are imported on use."""
