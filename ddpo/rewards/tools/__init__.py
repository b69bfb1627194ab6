"""Commands about rewards: availability, benchmark, doctor, pages of the cards."""
