"""The PP-LCNet network, with PaddleClas's parameter names, so that published weights load unchanged."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn.initializer import KaimingNormal

from models.architecture import (
    BOTH,
    HEAD_CHANNELS,
    HEIGHT,
    IMAGE_CHANNELS,
    SQUEEZE_FACTOR,
    STAGES,
    STEM_CHANNELS,
    STEM_STRIDE,
    scaled_channels,
    stride_of,
)


class ConvBN(nn.Layer):
    """Convolution, batch normalisation, hard-swish; [N, in, H, W] -> [N, out, H / stride, W / stride].

    stride is that of both directions, or those down and right.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=KaimingNormal()),
            bias_attr=False,
            data_format=data_format,
        )
        self.bn = nn.BatchNorm2D(out_channels, data_format=data_format)
        self.act = nn.Hardswish()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the layer."""
        return self.act(self.bn(self.conv(x)))


class SqueezeExcitation(nn.Layer):
    """Channel attention at a quarter of the channels; the shape stays the same."""

    def __init__(self, channels: int, data_format: str = "NCHW") -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1, data_format=data_format)
        self.conv1 = nn.Conv2D(channels, channels // SQUEEZE_FACTOR, 1, data_format=data_format)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2D(channels // SQUEEZE_FACTOR, channels, 1, data_format=data_format)
        self.hardsigmoid = nn.Hardsigmoid()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the layer."""
        return x * self.hardsigmoid(self.conv2(self.relu(self.conv1(self.pool(x)))))


class DepthwiseSeparable(nn.Layer):
    """Depthwise convolution, optional squeeze-and-excitation, pointwise convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: tuple[int, int],
        use_se: bool,
        data_format: str = "NCHW",
    ) -> None:
        super().__init__()
        self.dw_conv = ConvBN(in_channels, in_channels, kernel, stride, in_channels, data_format)
        self.se = SqueezeExcitation(in_channels, data_format) if use_se else None
        self.pw_conv = ConvBN(in_channels, out_channels, 1, data_format=data_format)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run the block."""
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class PPLCNet(nn.Layer):
    """PP-LCNet: images [N, 3, H, W], normalised RGB, to logits [N, num_classes].

    The state_dict has 146 entries at every scale, under PaddleClas's names. data_format is "NCHW", or "NHWC" for images
    [N, H, W, 3]. strides is what the stages halve, both sides or the height alone (see `architecture.BOTH`). The
    weights are the same in all of these.
    """

    def __init__(
        self,
        scale: float = 1.0,
        num_classes: int = 1000,
        dropout: float = 0.2,
        data_format: str = "NCHW",
        strides: str = BOTH,
    ) -> None:
        super().__init__()
        self.data_format = data_format
        channels = scaled_channels(STEM_CHANNELS, scale)
        self.conv1 = ConvBN(IMAGE_CHANNELS, channels, 3, STEM_STRIDE, data_format=data_format)
        for name, blocks in STAGES.items():
            stage = nn.Sequential()
            for index, (kernel, out, stride, use_se) in enumerate(blocks):
                out_channels = scaled_channels(out, scale)
                down_right = stride_of(stride, strides)
                block = DepthwiseSeparable(channels, out_channels, kernel, down_right, use_se, data_format)
                stage.add_sublayer(str(index), block)
                channels = out_channels
            self.add_sublayer(name, stage)
        self.avg_pool = nn.AdaptiveAvgPool2D(1, data_format=data_format)
        self.last_conv = nn.Conv2D(channels, HEAD_CHANNELS, 1, bias_attr=False, data_format=data_format)
        self.act = nn.Hardswish()
        # The published weights were trained with this mode: evaluation multiplies by 1 - dropout.
        self.dropout = nn.Dropout(p=dropout, mode="downscale_in_infer")
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(HEAD_CHANNELS, num_classes)

    @property
    def strides(self) -> str:
        """What the stages halve, read from the layers: BOTH sides or the HEIGHT."""
        down, right = self.blocks3[0].dw_conv.conv._stride
        return BOTH if down == right else HEIGHT

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Logits of a batch."""
        x = self.conv1(x)
        for name in STAGES:
            x = self._sub_layers[name](x)
        x = self.act(self.last_conv(self.avg_pool(x)))
        return self.fc(self.flatten(self.dropout(x)))
