"""Worlds: token trees and candidate selection."""
