package org.kbnn.demo

import kotlin.math.min
import kotlin.math.roundToInt

/** Turns a picture into network input exactly as the training pipeline does. */
class Preprocessing(private val spec: InputSpec) {
    /** Network input, height x width x channels: resized, cut, normalized. */
    fun tensor(picture: Picture): FloatArray {
        val scale = spec.shorterSide.toDouble() / min(picture.width, picture.height)
        val width = (picture.width * scale).roundToInt()
        val height = (picture.height * scale).roundToInt()
        val window = Window((width - spec.width) / 2, (height - spec.height) / 2, spec.width, spec.height)
        val tensor = FloatArray(spec.height * spec.width * spec.channels)
        for (channel in 0 until spec.channels) {
            val resized = channel(picture, channel).resized(width, height, window)
            for (y in 0 until spec.height) {
                for (x in 0 until spec.width) {
                    tensor[(y * spec.width + x) * spec.channels + channel] =
                        (resized[x, y] - spec.mean[channel]) / spec.std[channel]
                }
            }
        }
        return tensor
    }

    private fun channel(picture: Picture, channel: Int): Channel {
        val pixels = picture.pixels
        val values = FloatArray(pixels.size)
        for (k in pixels.indices) values[k] = if (spec.channels == 1) luma(pixels[k]) else level(pixels[k], channel)
        return Channel(picture.width, picture.height, values)
    }

    private fun level(pixel: Int, channel: Int): Float = ((pixel shr (16 - 8 * channel)) and 0xFF).toFloat()

    /** BT.601's weights in thousandths, so that a grey pixel keeps its level exactly. */
    private fun luma(pixel: Int): Float =
        (299 * ((pixel shr 16) and 0xFF) + 587 * ((pixel shr 8) and 0xFF) + 114 * (pixel and 0xFF)) / 1000f
}
